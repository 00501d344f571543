"""The nouns: frozen, validated values that every other part speaks in. No I/O here."""
