"""What Qdrant and Milvus say: pure codecs on messages, and one Index client each."""
