"""The durable record of live work: tables, migrations, and the only module that speaks SQL."""
