"""TLS: named modes, links over asyncio, and the stacks behind them. Nothing outside knows which stack serves a link."""
