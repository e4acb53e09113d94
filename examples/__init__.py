"""Three small services for the router; ``docs/router.md`` walks through them."""
