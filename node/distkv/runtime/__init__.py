"""A node as a process: the thin asyncio adapter around a member."""
