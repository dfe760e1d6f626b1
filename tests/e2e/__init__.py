"""The product as its users have it: processes, charts, commands, real control planes."""
