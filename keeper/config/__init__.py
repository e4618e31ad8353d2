"""What an operator says: settings, where each came from, keys, wallets and endpoints; read and checked."""
