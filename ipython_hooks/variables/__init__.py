"""Which names hold memory, by the buffers that really own it; bounded in time, always."""
