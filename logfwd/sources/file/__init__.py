"""Files that grow, rotate, are copied, truncated and deleted: an asyncio shell over a core with time as an argument."""
