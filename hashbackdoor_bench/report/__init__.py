"""Pictures and tables from records; nothing in this folder imports torch."""
