"""TOML files into frozen structs, with every problem collected before anything is refused."""
