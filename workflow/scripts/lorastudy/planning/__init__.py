"""What is known before anything is computed: memory, resources, access, cost."""
