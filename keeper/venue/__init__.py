"""One perpetuals program: its IDL and layouts, its messages, its errors and what they mean. Nothing else knows it."""
