export { Gateway, type GatewayProps } from './gateway.ts';
