"""The HTTP interface of OpenAI, as its clients and those of Groq speak it, on an engine of ours."""
