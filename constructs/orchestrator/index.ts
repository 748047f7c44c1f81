export { Orchestrator, type OrchestratorProps } from './orchestrator.ts';
