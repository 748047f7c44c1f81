export { Audit, type AuditProps } from './audit.ts';
export { AuditWitness, type AuditWitnessProps } from './witness.ts';
