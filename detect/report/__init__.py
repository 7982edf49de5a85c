"""A run as one offline HTML file, with plots and images, and runs side by side."""
