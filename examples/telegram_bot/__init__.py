"""A Telegram bot over `p2p.embed_portal.AsyncioClient`: `python -m examples.telegram_bot`."""
