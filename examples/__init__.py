"""Programs that use Bombyx, to be read and copied; README.md is the index."""
