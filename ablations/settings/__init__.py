"""Settings: what a TOML file may say, checked key by key. Imports no torch."""
