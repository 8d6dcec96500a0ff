"""Rule chains as documents: model, schema, compiler, repository, test cases."""
