"""Other frameworks' models and arrays, imported where they are used."""
