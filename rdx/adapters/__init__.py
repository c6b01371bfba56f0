"""Students in the pipelines of other libraries; each module needs its library, an extra of rdx."""
