"""The HTTP side: the API now, the console later."""
