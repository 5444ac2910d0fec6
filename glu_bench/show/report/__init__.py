"""The page that people look at: one HTML file with everything inside it."""
