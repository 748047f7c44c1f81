export { MemoryGateway, type MemoryGatewayProps } from './memory-gateway.ts';
