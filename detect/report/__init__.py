"""What a run tells: one offline HTML file, its plots and pictures, and runs side by side."""
