"""What a study is made of: texts and base models, as they are obtained and prepared."""
