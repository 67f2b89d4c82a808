"""Mathematics, models and experiments of one paper each, without notebooks."""
