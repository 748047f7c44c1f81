export { Opa, type OpaProps } from './opa.ts';
