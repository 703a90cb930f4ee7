"""The dashboard: a Dash application that knows a backend only by its wire contract (graybox.proto).

app.py builds it, main.py runs it, hub.py is its only way to the backend, every page and component is a file of its own.
"""
