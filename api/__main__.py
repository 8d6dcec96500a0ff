"""How the supervisor starts its children; people use the `rulemill` command."""

from api.cli import main

main()
