"""Money: payment channels on TON, seen from outside as a `Ledger`, a `Book` and a few pure rules."""
