"""How long selections take, how even they are, and how stable when rows are added."""
