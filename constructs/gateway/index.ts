export { type EmbeddingsServer, Gateway, type GatewayProps } from './gateway.ts';
