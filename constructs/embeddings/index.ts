export { Embeddings, type EmbeddingsProps } from './embeddings.ts';
