"""What projects have used."""
