"""The command line: parsing, printing, prompts, signals and exit codes."""
