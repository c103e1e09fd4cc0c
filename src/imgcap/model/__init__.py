"""The network, the search, and the folder that holds both."""
