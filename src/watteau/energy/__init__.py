"""Supply by hour and the hourly energy books: integer Wh, where the parts equal the meter."""
