"""The pages: each has `layout()`, made once, and `register(app, hub)`, its callbacks."""
