"""Real Kubernetes control planes for tests and for people: built once, started in seconds, gone with the run."""
