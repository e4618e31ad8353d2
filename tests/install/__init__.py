"""docs/install.md, and the services of docs/scale.md, done to the letter on a fresh Debian (`make install-check`)."""
