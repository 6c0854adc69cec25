"""Commands for what the console shows: incidents and what people say of them, stored queries, clients."""
