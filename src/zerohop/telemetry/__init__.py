"""What the hooks counted and recorded, as people and their tools read it."""
