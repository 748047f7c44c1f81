export { Qdrant, type QdrantProps, type QdrantRenderer } from './qdrant.ts';
