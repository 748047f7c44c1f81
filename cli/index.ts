export { CliFailure, exitCodes } from './failure.ts';
export { createProgram, type ProgramContext } from './program.ts';
