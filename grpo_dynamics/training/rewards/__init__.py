"""What stands behind verifiers: formats, limits of time, and the sandbox of programs under test."""
