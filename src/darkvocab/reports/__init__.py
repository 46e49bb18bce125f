"""Tables, figures and pages, from stored records alone."""
