"""Orders: prepared, relayed and cancelled, for users with a wallet and for managed wallets."""
