"""The reference program in a VM, and the deployed program's recorded behaviour."""
